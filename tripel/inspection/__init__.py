"""Looking inside: recorders of named intermediate tensors."""
