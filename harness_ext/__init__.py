"""How lm-eval runs MMLA: the task class, the `mmla` command, lazy video, backends, journal, reports."""
