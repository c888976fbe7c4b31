"""The pictures in the documents, and what takes them."""
