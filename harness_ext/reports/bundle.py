"""A run as one file that others can verify: `write_bundle(run, path)`; `mmla verify BUNDLE` reads it.

``write_bundle(run: Run, path: Path) -> Path`` and ``opened_run(path: Path)``, a context manager that gives the `Run` of
a folder or of a bundle.
"""
