"""A deterministic stand-in for a model: it speaks the OpenAI chat API and answers from what it is given."""
