// The openai SDK for Node, chat completions: its own loop over tools.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { CITY, MODEL, QUESTION, STRUCTURED_QUESTION, TOOLS, execute, run, tell } from "./question.mjs";

const client = new OpenAI();
const tools = Object.entries(TOOLS).map(([name, { description, parameters }]) => ({
  type: "function",
  function: { name, description, parameters: z.toJSONSchema(parameters), parse: JSON.parse, function: (args) => execute(name, args) },
}));

async function ask({ stream, parallel }) {
  const messages = [{ role: "user", content: QUESTION }];
  const options = { ...(parallel && { parallel_tool_calls: true }), ...(stream && { stream, stream_options: { include_usage: true } }) };
  const runner = client.chat.completions.runTools({ model: MODEL, messages, tools, ...options });
  let pieces = 0;
  if (stream) for await (const _ of runner) pieces += 1;
  const text = await runner.finalContent();
  const replies = runner.messages.filter((message) => message.role === "assistant");
  const rounds = replies.map(({ tool_calls }) => (tool_calls ?? []).map((call) => [call.id, call.function.name, call.function.arguments]));
  const { total_tokens: tokens } = await runner.totalUsage();
  return run(rounds, text, { tokens, pieces: stream ? pieces : null });
}

const described = await client.chat.completions.parse({
  model: MODEL,
  messages: [{ role: "user", content: STRUCTURED_QUESTION }],
  response_format: zodResponseFormat(CITY, "city"),
});
tell({
  whole: await ask({ stream: false, parallel: false }),
  streamed: await ask({ stream: true, parallel: false }),
  whole_parallel: await ask({ stream: false, parallel: true }),
  streamed_parallel: await ask({ stream: true, parallel: true }),
  structured: described.choices[0].message.parsed,
});
