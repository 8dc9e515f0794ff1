"""How a model learns the tasks: SFT and instruction tuning (built in a later issue)."""
