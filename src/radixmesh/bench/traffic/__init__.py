"""The load: what is asked, when, and what came of each request."""
