// A virtual object that posts each event of its user once, recorded in Restate's journal: URL TEXT.

// The SDK needs it, and Node has it from version 22 on.
Promise.withResolvers ??= function withResolvers() {
  const deferred = {};
  deferred.promise = new Promise((resolve, reject) => Object.assign(deferred, { resolve, reject }));
  return deferred;
};
const restate = await import("@restatedev/restate-sdk");
const http2 = await import("node:http2");

const [url, text] = process.argv.slice(2);

const poster = restate.object({
  name: "poster",
  handlers: {
    post: async (context, event) => {
      await context.run("post", async () => {
        const answer = await fetch(url, {
          method: "POST",
          headers: { "content-type": "application/json", "idempotency-key": `event-${event.data.public_metadata.seq}` },
          body: JSON.stringify({ user: context.key, text }),
        });
        if (!answer.ok) {
          throw new Error(`status ${answer.status}`);
        }
        await answer.arrayBuffer();
      });
    },
  },
});

const server = http2.createServer(restate.createEndpointHandler({ services: [poster] }));
server.listen(0, "127.0.0.1", () => console.log(`listening on 127.0.0.1:${server.address().port}`));
