"""Words in, words out: one protocol over every language-model backend."""
