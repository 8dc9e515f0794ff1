"""Data files of `mmla_tasks`; a package, so that an installed copy finds them."""
