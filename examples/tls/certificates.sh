#!/bin/sh
# Make an authority of one's own, and a certificate of it for the server and for a client, in folder $1.
# For trying out only: where others are to trust them, keys belong elsewhere and live longer.
set -eu
mkdir -p "$1"
cd "$1"
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=example authority" -keyout ca.key -out ca.pem 2>/dev/null
for who in server client; do
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$who" -keyout "$who.key" -out "$who.csr" 2>/dev/null
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >"$who.ext"
    openssl x509 -req -in "$who.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile "$who.ext" \
        -out "$who.pem" 2>/dev/null
    rm "$who.csr" "$who.ext"
done
chmod 600 ./*.key
