# SPDX-License-Identifier: Apache-2.0
"""A Python gRPC client that knows nothing but the server's reflection."""

import unittest

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import harness

SERVICE = "fairlead.v1.Inference"


class Client:
    def __init__(self, channel):
        self.channel = channel
        database = ProtoReflectionDescriptorDatabase(channel)
        self.services = database.get_services()
        self.descriptor = descriptor_pool.DescriptorPool(database).FindServiceByName(SERVICE)

    def message(self, name):
        pool = self.descriptor.file.pool
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"fairlead.v1.{name}"))

    def call(self, method_name, request, **kwargs):
        method = self.descriptor.FindMethodByName(method_name)
        answer = message_factory.GetMessageClass(method.output_type)
        make = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        return make(f"/{SERVICE}/{method_name}", request_serializer=lambda m: m.SerializeToString(),
                    response_deserializer=answer.FromString)(request, **kwargs)


class GrpcClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Server()
        cls.channel = grpc.insecure_channel(cls.server.grpc)
        cls.client = Client(cls.channel)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        cls.server.__exit__()

    def chat_request(self, **fields):
        request = self.client.message("GenerateRequest")(**fields)
        request.chat.messages.add(role="user", content="What is the capital of France?")
        request.sampling.temperature = 0
        return request

    def test_reflection_lists_services(self):
        self.assertIn(SERVICE, self.client.services)
        self.assertEqual({m.name for m in self.client.descriptor.methods},
                         {"Generate", "GenerateOnce", "Embed", "Tokenize", "Detokenize", "ListModels", "ServerInfo"})

    def test_generate_streams(self):
        events = list(self.client.call("Generate", self.chat_request()))
        kinds = [e.WhichOneof("event") for e in events]
        self.assertEqual(kinds[0], "started")
        self.assertEqual(kinds[-2:], ["finish", "usage"])
        self.assertEqual("".join(e.delta.text for e in events), "The capital of France is Paris.")
        self.assertEqual(sum(e.delta.num_tokens for e in events), 8)
        self.assertEqual(events[-1].usage.prompt_tokens, 37)
        self.assertGreater(kinds.count("delta"), 1)

    def test_generate_once(self):
        answer = self.client.call("GenerateOnce", self.chat_request(n=2))
        self.assertEqual([c.text for c in answer.choices], ["The capital of France is Paris."] * 2)
        self.assertEqual(answer.usage.completion_tokens, 16)

    def test_tokenize_and_back(self):
        tokens = self.client.call("Tokenize", self.client.message("TokenizeRequest")(text="Hello, world")).tokens
        text = self.client.call("Detokenize", self.client.message("DetokenizeRequest")(tokens=tokens)).text
        self.assertEqual(text, "Hello, world")

    def test_models_and_info(self):
        models = self.client.call("ListModels", self.client.message("ListModelsRequest")()).models
        self.assertEqual([m.id for m in models], [self.server.name])
        info = self.client.call("ServerInfo", self.client.message("ServerInfoRequest")())
        self.assertEqual(info.model, self.server.name)
        self.assertGreater(info.kv_cache_blocks, 0)

    def test_errors_have_codes_and_details(self):
        with self.assertRaises(grpc.RpcError) as caught:
            request = self.chat_request()
            request.sampling.temperature = 9
            list(self.client.call("Generate", request))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn("temperature", caught.exception.details())
        self.assertIn("grpc-status-details-bin", dict(caught.exception.trailing_metadata()))
        with self.assertRaises(grpc.RpcError) as caught:
            self.client.call("GenerateOnce", self.chat_request(model="other"))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_cancel_frees_the_sequence(self):
        request = self.chat_request()
        request.stop.max_tokens = 4000
        request.stop.ignore_eos = True
        call = self.client.call("Generate", request)
        next(e for e in call if e.WhichOneof("event") == "delta")
        self.assertGreater(self.server.kv_used(), 0)
        call.cancel()
        self.assertLess(self.server.wait_until_idle(), 1.0)

    def test_deadline(self):
        request = self.chat_request()
        request.stop.max_tokens = 7000
        request.stop.ignore_eos = True
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.client.call("Generate", request, timeout=0.5))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertLess(self.server.wait_until_idle(), 2.0)

    def test_health(self):
        health = health_pb2_grpc.HealthStub(self.channel)
        for name in ("", SERVICE):
            self.assertEqual(health.Check(health_pb2.HealthCheckRequest(service=name)).status,
                             health_pb2.HealthCheckResponse.SERVING)
        with self.assertRaises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="nothing"))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)


if __name__ == "__main__":
    harness.main()
