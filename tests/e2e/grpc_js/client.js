// Calls by @grpc/grpc-js, told on standard input and reported on standard output, both as JSON.
// In: {address, calls: [{path, messages: [base64], stream, deadlineMs, cancelAfter}]}.
// Out: one {code, details, answers: [base64]} per call. Messages stay bytes: what is tested is the way they take.
const grpc = require('@grpc/grpc-js');

const { address, calls } = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const client = new grpc.Client(address, grpc.credentials.createInsecure(), {
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
});
const same = (bytes) => bytes;

function unary(call, options) {
  return new Promise((resolve) => {
    const message = Buffer.from(call.messages[0], 'base64');
    client.makeUnaryRequest(call.path, same, same, message, new grpc.Metadata(), options, (error, answer) => {
      const answers = answer ? [answer.toString('base64')] : [];
      resolve({ code: error ? error.code : 0, details: error ? error.details : '', answers });
    });
  });
}

// Ping-pong: the next message goes when the last was answered.
function stream(call, options) {
  return new Promise((resolve) => {
    const answers = [];
    const messages = call.messages.map((text) => Buffer.from(text, 'base64'));
    const duplex = client.makeBidiStreamRequest(call.path, same, same, new grpc.Metadata(), options);
    duplex.on('data', (answer) => {
      answers.push(answer.toString('base64'));
      if (answers.length === call.cancelAfter) duplex.cancel();
      else if (answers.length === messages.length) duplex.end();
      else duplex.write(messages[answers.length]);
    });
    duplex.on('error', () => {}); // the status says it
    duplex.on('status', (status) => resolve({ code: status.code, details: status.details, answers }));
    duplex.write(messages[0]);
  });
}

Promise.all(
  calls.map((call) => {
    const options = call.deadlineMs ? { deadline: Date.now() + call.deadlineMs } : {};
    return call.stream ? stream(call, options) : unary(call, options);
  }),
).then((reports) => {
  process.stdout.write(JSON.stringify(reports));
  client.close();
});
