"""A model server that speaks TensorFlow Serving's protocol, takes its flags and reads its configuration files.

flags          the command line
model_config   models.config → checked model entries
text_protos    the other configuration files: monitoring, batching
lifecycle      the states of a version, and which versions a policy aspires to
servable       a loaded SavedModel: signatures, run, unload
batching       merges concurrent runs of one signature and splits the outputs
batch_queue    which requests share a batch, and the threads that take batches
batching_parameters  their parameters, checked
metrics        what is counted, and the page for Prometheus
warmup         replays a version's warm-up records
manager        loads and unloads versions as entries and folders say; finds the version that a request means
inference      a request's tensors or examples → outputs; protocol-neutral
examples       JSON features → tf.Example, inputs of Classify and Regress → serialized examples
grpc_service   the gRPC side
thread_limit   how many gRPC calls at the same time, and the refusal of the next
json_text      JSON as RapidJSON reads and writes it
grisu          the digits of a double
json_tensors   JSON values ↔ tensors
rest           the REST side
server         starts and stops all of it
check          a candidate's golden requests against a private server
errors         what is refused, with the protocol's status codes
"""
