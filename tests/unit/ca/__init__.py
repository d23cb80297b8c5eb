"""The certificate authority, tokens, TLS contexts and files."""
