"""Training of one cell, from its start to a finished run folder."""
