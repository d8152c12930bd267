"""A world without a clock, a thread or a socket, in which the real stages run: loop, stores, endpoint, and a rig."""
