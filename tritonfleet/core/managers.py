"""How `router.management` tells a certificate's name and a secret's file from a network."""

CERTIFICATE = "cert:"
TOKEN = "token:"  # noqa: S105 # a prefix
