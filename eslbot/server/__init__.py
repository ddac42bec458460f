"""The workers that take FreeSWITCH's connections, and gunicorn's arbiter that runs them."""
