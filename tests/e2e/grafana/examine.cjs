// Reads {"queries": [[language, text]], "tables": [{"frames": ..., "transformations": ...}],
// "numbers": [{"config": ..., "values": [...]}]}
// from stdin and writes what Grafana's own parts make of it: errors of the grammars, transformed tables, texts and colours.
const { createRequire } = require("node:module");
const parts = createRequire(process.argv[2] + "/package.json");
const data = parts("@grafana/data");
const grammars = {
  logql: parts("@grafana/lezer-logql").parser,
  traceql: parts("@grafana/lezer-traceql").parser,
};
// The transformations look for a browser's logging switch. They are loaded first: with a window, other modules want a document too.
globalThis.window = globalThis;
if (!globalThis.navigator) globalThis.navigator = { languages: ["en-GB"], language: "en-GB" };

const standard = data.standardTransformers;
data.standardTransformersRegistry.setInit(() =>
  [standard.mergeTransformer, standard.organizeFieldsTransformer].map((transformation) => ({
    id: transformation.id,
    name: transformation.name,
    transformation: async () => transformation,
  })),
);

function errors([language, text]) {
  const found = [];
  grammars[language].parse(text).iterate({
    enter(node) {
      if (node.type.isError) found.push(node.from);
    },
  });
  return found;
}

function transformed({ frames, transformations }) {
  return new Promise((resolve, reject) =>
    data.transformDataFrame(transformations, frames.map(data.toDataFrame)).subscribe({
      next: (made) => resolve(made.map((frame) => frame.fields.map((field) => [field.name, [...field.values]]))),
      error: reject,
    }),
  );
}

// What a single number shows: without any series, and for each of some values.
function shown({ config, values }) {
  const theme = data.createTheme();
  const field = { name: "Value", type: data.FieldType.number, config, values: [] };
  const process = data.getDisplayProcessor({ field, theme });
  return values.map((value) => {
    const made = process(value);
    return [`${made.prefix ?? ""}${made.text}${made.suffix ?? ""}`, made.color ?? ""];
  });
}

async function main() {
  const asked = JSON.parse(require("node:fs").readFileSync(0, "utf-8"));
  const answer = {
    errors: asked.queries.map(errors),
    numbers: asked.numbers.map(shown),
    tables: await Promise.all(asked.tables.map(transformed)),
  };
  process.stdout.write(JSON.stringify(answer));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
