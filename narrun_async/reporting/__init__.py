"""What is told about an experiment: its summary, and files for other programs."""
