"""The marshmallow schemas of the TOML file, one a table: they make objects of the model, and tables of those.

``table`` is what all of them have in common, ``service`` has the tables of the service, ``workspace`` those
of a tenant, and ``whole`` the file.
"""
