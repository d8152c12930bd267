"""Use cases over the ports, one file each."""
