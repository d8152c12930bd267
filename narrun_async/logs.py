"""Log files of an experiment: opened for appending, readable by the owner only, without any narrative text."""
