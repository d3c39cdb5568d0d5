# SPDX-License-Identifier: Apache-2.0
"""TLS and keys on both ports, with the clients that people use."""

import hashlib
import os
import ssl
import subprocess
import tempfile
import unittest

import grpc
import httpx
import openai
from grpc_health.v1 import health_pb2, health_pb2_grpc

import harness
from grpc_client_test import Client

ROUTES = [("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("GET", "/v1/models"), ("GET", "/v1/models/x"),
          ("POST", "/v1/embeddings"), ("POST", "/v1/score"), ("POST", "/rerank"),
          ("POST", "/tokenize"), ("POST", "/detokenize"), ("GET", "/metrics"), ("GET", "/config"), ("GET", "/no/such/path"),
          ("DELETE", "/v1/models"), ("GET", "/"), ("GET", "//health"), ("GET", "/health/"), ("GET", "/ready/../v1/models"),
          ("DELETE", "/health"), ("POST", "/version")]
PUBLIC = ["/health", "/ready", "/version"]


class SecurityTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.cert, cls.private = os.path.join(cls.folder.name, "cert.pem"), os.path.join(cls.folder.name, "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", cls.private, "-out", cls.cert, "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"], check=True, capture_output=True)
        keys = os.path.join(cls.folder.name, "keys")
        with open(keys, "w", encoding="utf-8") as f:
            f.write("# the keys\n\nfirst-key\nsha256:" + hashlib.sha256(b"second-key").hexdigest() + "\n")
        cls.server = harness.Server("--tls-cert", cls.cert, "--tls-key", cls.private, "--api-key-file", keys, key="first-key", tls=cls.cert)
        cls.context = ssl.create_default_context(cafile=cls.cert)

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()
        cls.folder.cleanup()

    def client(self, key=None):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.server.url, verify=self.context, headers=headers, timeout=60)

    def test_keys_on_every_route(self):
        for key in (None, "wrong-key", "first-key ".strip() + "x", "sha256:" + hashlib.sha256(b"first-key").hexdigest()):
            with self.client(key) as client:
                for method, path in ROUTES:
                    answer = client.request(method, self.server.url + path)
                    self.assertEqual(answer.status_code, 401, (key, method, path))
                    self.assertEqual(answer.json()["error"]["type"], "authentication_error")
                    self.assertEqual(answer.headers["www-authenticate"], "Bearer")
                for path in PUBLIC:
                    self.assertEqual(client.get(path).status_code, 200)

    def test_right_keys(self):
        for key in ("first-key", "second-key"):
            with self.client(key) as client:
                self.assertEqual(client.get("/v1/models").status_code, 200)
                self.assertEqual(client.get("/no/such/path").status_code, 404)
                config = client.get("/config").text
                for secret in ("first-key", "second-key", "BEGIN"):
                    self.assertNotIn(secret, config)

    def test_openai_over_tls(self):
        http = httpx.Client(verify=self.context)
        client = openai.OpenAI(base_url=self.server.url + "/v1", api_key="second-key", http_client=http, max_retries=0)
        answer = client.completions.create(model=self.server.name, prompt="Hi", max_tokens=2, stream=True)
        self.assertGreaterEqual(len(list(answer)), 2)
        bad = openai.OpenAI(base_url=self.server.url + "/v1", api_key="nope", http_client=http, max_retries=0)
        with self.assertRaises(openai.AuthenticationError):
            bad.models.list()

    def test_openssl_sees_tls12_and_above_only(self):
        def handshake(*flags):
            result = subprocess.run(["openssl", "s_client", "-connect", self.server.ready["http"], "-CAfile", self.cert, "-verify_return_error", *flags],
                                    input="", capture_output=True, text=True, timeout=30, check=False)
            return result.returncode == 0 and "Verify return code: 0 (ok)" in result.stdout
        self.assertTrue(handshake("-tls1_2"))
        self.assertTrue(handshake("-tls1_3"))
        self.assertFalse(handshake("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"))
        for address in (self.server.ready["http"], self.server.grpc):
            result = subprocess.run(["openssl", "s_client", "-connect", address, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], input="",
                                    capture_output=True, text=True, timeout=30, check=False)
            self.assertNotEqual(result.returncode, 0)

    def test_plain_http_gets_nothing(self):
        with self.assertRaises(httpx.HTTPError):
            httpx.get("http://" + self.server.ready["http"] + "/health", timeout=10)

    def grpc_channel(self):
        with open(self.cert, "rb") as f:
            return grpc.secure_channel(self.server.grpc, grpc.ssl_channel_credentials(f.read()))

    def test_grpc_keys(self):
        with self.grpc_channel() as channel:
            health = health_pb2_grpc.HealthStub(channel)
            self.assertEqual(health.Check(health_pb2.HealthCheckRequest()).status, health_pb2.HealthCheckResponse.SERVING)
            methods = ["/fairlead.v1.Inference/" + m for m in ("GenerateOnce", "Embed", "Tokenize", "Detokenize", "ListModels", "ServerInfo", "NoSuchMethod")]
            methods += ["/no.such.Service/Method", "/grpc.reflection.v1alpha.ServerReflection/Nothing"]
            for metadata in (None, [("authorization", "Bearer wrong")], [("authorization", "first-key")]):
                for method in methods:
                    with self.assertRaises(grpc.RpcError) as caught:
                        channel.unary_unary(method)(b"", metadata=metadata, timeout=20)
                    self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED, (method, metadata))
                for method in ("/fairlead.v1.Inference/Generate", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"):
                    with self.assertRaises(grpc.RpcError) as caught:
                        list(channel.stream_stream(method)(iter([b""]), metadata=metadata, timeout=20))
                    self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED, (method, metadata))

    def test_grpc_with_key(self):
        class WithKey(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
            def add(self, continuation, details, request):
                details = details._replace(metadata=[("authorization", "Bearer second-key")])
                return continuation(details, request)
            intercept_unary_unary = intercept_unary_stream = intercept_stream_stream = add

        with self.grpc_channel() as channel:
            client = Client(grpc.intercept_channel(channel, WithKey()))
            answer = client.call("Tokenize", client.message("TokenizeRequest")(text="Hi"))
            self.assertGreater(len(answer.tokens), 0)
            with self.assertRaises(grpc.RpcError) as caught:
                channel.unary_unary("/no.such.Service/Method")(b"", metadata=[("authorization", "Bearer second-key")])
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_bad_files(self):
        for flags in (["--tls-cert", self.cert], ["--tls-cert", self.private, "--tls-key", self.cert], ["--api-key-file", "/no/such/file"]):
            result = harness.run("serve", "--model", harness.MODEL, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", *flags)
            self.assertIn(result.returncode, (1, 2), result.stderr)
            self.assertIn("error: ", result.stderr)


if __name__ == "__main__":
    harness.main()
