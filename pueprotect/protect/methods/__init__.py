"""Methods that make noise, one in each file."""
