"""The parts of a report, one file each: values in, blocks out. Every number is in words with its denominator."""
