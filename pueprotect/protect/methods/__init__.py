"""Ways to make noise, one a file."""
