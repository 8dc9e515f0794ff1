"""What is asked: one YAML per task. No Python lives here; `importlib.resources` finds the folder through this file."""
