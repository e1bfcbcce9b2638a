"""Question, passages and history to the messages that a language model reads, and its citations back; plain Python."""
