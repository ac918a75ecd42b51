// The openai SDK for Node, Responses: histories kept by the client when streamed, by the gateway when not.
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { CITY, MODEL, QUESTION, STRUCTURED_QUESTION, TOOLS, execute, run, tell } from "./question.mjs";

const client = new OpenAI();
const tools = Object.entries(TOOLS).map(([name, { description, parameters }]) => ({
  type: "function",
  name,
  description,
  parameters: z.toJSONSchema(parameters),
  strict: true,
}));

async function ask({ stream, parallel }) {
  const options = { model: MODEL, tools, ...(parallel && { parallel_tool_calls: true }) };
  const rounds = [];
  let [input, tokens, pieces, previous] = [[{ role: "user", content: QUESTION }], 0, 0, undefined];
  while (rounds.length < 5) {
    let response;
    if (stream) {
      const events = client.responses.stream({ ...options, input, store: false });
      for await (const _ of events) pieces += 1;
      response = await events.finalResponse();
      input = [...input, ...response.output];
    } else {
      response = await client.responses.create({ ...options, input, previous_response_id: previous });
      [previous, input] = [response.id, []];
    }
    tokens += response.usage.total_tokens;
    const calls = response.output.filter(({ type }) => type === "function_call");
    if (!calls.length) return run(rounds, response.output_text, { tokens, pieces: stream ? pieces : null });
    rounds.push(calls.map((call) => [call.call_id, call.name, call.arguments]));
    for (const { call_id, name, arguments: args } of calls)
      input.push({ type: "function_call_output", call_id, output: execute(name, JSON.parse(args)) });
  }
  throw new Error(`no answer after ${JSON.stringify(rounds)}`);
}

const described = await client.responses.parse({
  model: MODEL,
  input: STRUCTURED_QUESTION,
  text: { format: zodTextFormat(CITY, "city") },
});
tell({
  whole: await ask({ stream: false, parallel: false }),
  streamed: await ask({ stream: true, parallel: false }),
  whole_parallel: await ask({ stream: false, parallel: true }),
  streamed_parallel: await ask({ stream: true, parallel: true }),
  structured: described.output_parsed,
});
