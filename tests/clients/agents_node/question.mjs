// What every agent in this folder is asked, the tools it has, and how it tells what happened: as ../agents/question.py.
import { z } from "zod";

export const MODEL = "base";
export const QUESTION = "Please call get_weather, get_time and tell me.";
export const STRUCTURED_QUESTION = "Describe the capital of France.";
export const CITY = z.object({ name: z.string(), population: z.number().int().min(3) });

let executed = [];

export const TOOLS = {
  get_weather: {
    description: "The weather in a city.",
    parameters: z.object({ city: z.string() }),
    run: ({ city }) => `22 degrees in ${city}`,
  },
  get_time: {
    description: "The time in a city.",
    parameters: z.object({ city: z.string(), hours_ahead: z.number().int().min(3) }),
    run: ({ city, hours_ahead }) => `noon and ${hours_ahead} hours in ${city}`,
  },
};

export function execute(name, args) {
  executed.push([name, args]);
  return TOOLS[name].run(args);
}

// `rounds` are the calls of each reply as [id, name, arguments as JSON]; `pieces` is how many pieces a stream came in.
export function run(rounds, text, { tokens = null, pieces = null } = {}) {
  const told = { rounds: rounds.filter((calls) => calls.length), executed, text, tokens, pieces };
  executed = [];
  return told;
}

export function tell(runs) {
  console.log(JSON.stringify(runs));
}
