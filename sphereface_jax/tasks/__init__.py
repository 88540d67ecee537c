"""Tasks: what a benchmark asks to be embedded, and how it scores the vectors."""
