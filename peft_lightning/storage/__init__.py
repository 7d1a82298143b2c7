"""Files that survive: written whole or not at all, checkpoints in two generations, one process a run directory."""
