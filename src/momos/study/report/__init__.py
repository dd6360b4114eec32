"""What a comparison shows: a table, and two pictures."""
