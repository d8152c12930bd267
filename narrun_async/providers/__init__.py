"""Endpoints behind the `ChatProvider` seam; the only room that imports an HTTP client."""
