#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Exits with 0 when the server in this container answers /health with 200, over HTTP or, where the port speaks TLS, HTTPS.
# HEALTH_PORT names the port if it is not 8000. Needs bash and openssl, no curl.
set -euo pipefail

readonly port=${HEALTH_PORT:-8000}
request() { printf 'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'; }

exec 3<>"/dev/tcp/127.0.0.1/$port"
request >&3
status=
IFS= read -r -t 2 status <&3 2>/dev/null || true
if [[ $status == HTTP/* ]]; then
  cat <&3 >/dev/null || true  # closing on unread bytes would reset the server's connection
  [[ $status == 'HTTP/1.1 200'* ]]
  exit
fi
# No HTTP came back, so the port speaks TLS. The certificate is for the clients to check: it does not name 127.0.0.1.
status=$(request | openssl s_client -quiet -connect "127.0.0.1:$port" 2>/dev/null | head -n 1) || true
[[ $status == 'HTTP/1.1 200'* ]]
