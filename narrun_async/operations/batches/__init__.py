"""Batches, one file a use case: exporting, submitting, polling, collecting, cancelling."""
