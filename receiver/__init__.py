"""The web process that accepts callbacks. It stores each event, responds, and does nothing else."""
