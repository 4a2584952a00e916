"""The routes: our own, OpenAI's, adapters, documents."""
