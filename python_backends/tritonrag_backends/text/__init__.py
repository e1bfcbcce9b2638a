"""Plain text taken apart: sentences, and the pieces that passages and answers are made of."""
