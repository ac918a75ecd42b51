// The Vercel AI SDK, with the provider named as the argument: `openai-compatible` (chat) or `openai` (Responses).
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { CITY, MODEL, QUESTION, STRUCTURED_QUESTION, TOOLS, execute, run, tell } from "./question.mjs";

const address = { baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY };
const compatible = process.argv[2] === "openai-compatible";
const provider = compatible
  ? createOpenAICompatible({ name: "agentflux", ...address, includeUsage: true, supportsStructuredOutputs: true })
  : createOpenAI(address);
const model = provider(MODEL);
const PARALLEL = { agentflux: { parallel_tool_calls: true }, openai: { parallelToolCalls: true } };
const tools = Object.fromEntries(
  Object.entries(TOOLS).map(([name, { description, parameters }]) => [
    name,
    tool({ description, inputSchema: parameters, execute: async (args) => execute(name, args) }),
  ]),
);

async function ask({ stream, parallel }) {
  const options = { model, tools, prompt: QUESTION, stopWhen: stepCountIs(5), ...(parallel && { providerOptions: PARALLEL }) };
  let pieces = 0;
  const result = stream ? streamText({ ...options, onError: ({ error }) => { throw error; } }) : await generateText(options);
  if (stream) for await (const _ of result.fullStream) pieces += 1;
  const steps = await result.steps;
  const rounds = steps.map(({ toolCalls }) => toolCalls.map((call) => [call.toolCallId, call.toolName, JSON.stringify(call.input)]));
  const { totalTokens: tokens } = await result.totalUsage;
  return run(rounds, await result.text, { tokens, pieces: stream ? pieces : null });
}

async function describe() {
  const options = { model, schema: CITY, prompt: STRUCTURED_QUESTION };
  const whole = (await generateObject(options)).object;
  const stream = streamObject(options);
  // Nothing is asked for until the stream is read.
  for await (const _ of stream.partialObjectStream);
  const streamed = await stream.object;
  if (JSON.stringify(whole) !== JSON.stringify(streamed)) throw new Error(JSON.stringify([whole, streamed]));
  return whole;
}

tell({
  whole: await ask({ stream: false, parallel: false }),
  streamed: await ask({ stream: true, parallel: false }),
  whole_parallel: await ask({ stream: false, parallel: true }),
  streamed_parallel: await ask({ stream: true, parallel: true }),
  structured: await describe(),
});
