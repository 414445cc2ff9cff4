declare module "ktables:codec/logging@0.1.0" {
  const logging: { log(level: "trace" | "debug" | "info" | "warn" | "error", message: string): void };
  export default logging;
}
