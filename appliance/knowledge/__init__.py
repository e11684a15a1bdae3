"""What the desk knows: importing articles, embedding them, finding the right ones."""
