"""Category, mood and intent of a message, by small heads over its embedding."""
