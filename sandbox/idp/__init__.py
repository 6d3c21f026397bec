"""An OpenID Connect issuer for local use: discovery, signing keys that rotate, client credentials, registration."""
