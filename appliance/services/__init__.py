"""Use cases, shared by the API, the command line and jobs. ``answer_query`` is the story."""
