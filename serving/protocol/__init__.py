"""TensorFlow Serving's protocol without TensorFlow: message classes, tensors, clients.

    from serving.protocol.client import AsyncPredictClient, PredictClient, ModelClient
    from serving.protocol.errors import CallError

    with PredictClient("127.0.0.1:8500", timeout_s=1.0) as client:
        outputs = client.predict(
            "ml-100k.ranking",
            {"item_id": numpy.array(["1", "2"], dtype=object), "user_age": numpy.array([7.0], dtype=numpy.float32)},
            version=3,                      # or label="stable"; neither: the newest
            signature_name="one_user",
        )
        outputs["score"]                    # numpy float32 array, shape [2]

    client = AsyncPredictClient("127.0.0.1:8500", timeout_s=0.05)  # inside a running event loop; one per process
    outputs = await client.predict(...)     # the same arguments; cancels with its task
    await client.close()

Numbers travel as `tensor_content`; text arrays (dtype object, str or bytes) as `string_val`; text outputs come back as
object arrays of bytes. Every failure is a `CallError` with `.code` (a `grpc.StatusCode`), `.transient` and a message
that names model, address and remedy.

The message classes come from the descriptors inside the installed `tensorflow-serving-api` and `tensorflow` wheels.
`python -m serving.protocol generate` collects them, unchanged to the byte, into `_generated/` (git-ignored): set-up and
image builds call it where those wheels are, and afterwards neither is needed. They live in a descriptor pool of their
own, so nothing collides where TensorFlow's modules are loaded in the same process.

descriptors   collects the descriptors
messages      makes the message classes of them
tensors       numpy ↔ TensorProto
client        PredictClient, AsyncPredictClient, ModelClient
errors        CallError, ProtocolMissingError
"""
