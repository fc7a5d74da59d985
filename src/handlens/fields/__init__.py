"""A JSON schema and a picture in; every field with its value, how sure it is, and the place it was read from."""
