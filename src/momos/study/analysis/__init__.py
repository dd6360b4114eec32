"""Numbers from finished runs, with intervals; nothing of how they are shown."""
