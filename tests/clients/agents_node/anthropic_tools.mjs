// Anthropic's SDK for Node, over /v1/messages: its own loop over tools, which asks for a thread that is kept by the server.
import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { CITY, MODEL, QUESTION, STRUCTURED_QUESTION, TOOLS, execute, run, tell } from "./question.mjs";
import { z } from "zod";

const client = new Anthropic();
const tools = Object.entries(TOOLS).map(([name, { description, parameters }]) =>
  betaZodTool({ name, description, inputSchema: parameters, run: (args) => execute(name, args) }),
);

async function ask({ stream, parallel }) {
  const messages = [{ role: "user", content: QUESTION }];
  const tool_choice = { type: "auto", disable_parallel_tool_use: !parallel };
  const runner = client.beta.messages.toolRunner({ model: MODEL, max_tokens: 200, messages, tools, tool_choice, stream });
  const replies = [];
  let pieces = 0;
  for await (const reply of runner) {
    if (stream) for await (const _ of reply) pieces += 1;
    replies.push(stream ? await reply.finalMessage() : reply);
  }
  const uses = replies.map(({ content }) => content.filter(({ type }) => type === "tool_use"));
  const rounds = uses.map((calls) => calls.map((call) => [call.id, call.name, JSON.stringify(call.input)]));
  const tokens = replies.reduce((sum, { usage }) => sum + usage.input_tokens + usage.output_tokens, 0);
  return run(rounds, replies.at(-1).content[0].text, { tokens, pieces: stream ? pieces : null });
}

const described = await client.messages.create({
  model: MODEL,
  max_tokens: 200,
  messages: [{ role: "user", content: STRUCTURED_QUESTION }],
  output_config: { format: { type: "json_schema", schema: z.toJSONSchema(CITY) } },
});
tell({
  whole: await ask({ stream: false, parallel: false }),
  streamed: await ask({ stream: true, parallel: false }),
  whole_parallel: await ask({ stream: false, parallel: true }),
  streamed_parallel: await ask({ stream: true, parallel: true }),
  structured: JSON.parse(described.content[0].text),
});
