package trademesh.conformance;

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.grpc.Channel;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import trademesh.client.Connection;
import trademesh.client.Tokens;
import trademesh.oms.v1.OrderServiceGrpc;
import trademesh.oms.v1.OrderServiceGrpc.OrderServiceBlockingStub;
import trademesh.oms.v1.OrderServiceGrpc.OrderServiceBlockingV2Stub;
import trademesh.oms.v1.OrderServiceOuterClass.ListOrdersRequest;

/** Runs the scenario table and prints what it saw, one JSON line per scenario. It judges nothing: the driver does. */
public final class Conformance {
  private static final int SCENARIO_SECONDS_MAX = 60;
  private static final int WARM_SECONDS_MAX = 120;

  private final JsonObject task;
  private final Map<String, ManagedChannel> channels = new HashMap<>();
  private final Map<String, Tokens> tokens = new HashMap<>();

  private final ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();

  private Conformance(JsonObject task) {
    this.task = task;
  }

  /** Entry point; the argument is the task's file: where the mesh is, who calls, and what to do. */
  public static void main(String[] arguments) throws IOException, InterruptedException {
    var runner = new Conformance(JsonParser.parseString(Files.readString(Path.of(arguments[0]))).getAsJsonObject());
    var scenarios = runner.task.getAsJsonArray("scenarios");
    try {
      runner.warm(scenarios.get(0).getAsJsonObject().getAsJsonArray("steps").get(0).getAsJsonObject());
      for (var scenario : scenarios) {
        System.out.println(new Gson().toJson(runner.play(scenario.getAsJsonObject())));
        System.out.flush();
      }
    } finally {
      runner.channels.values().forEach(ManagedChannel::shutdownNow);
      runner.timer.shutdownNow();
    }
  }

  /** Does once what a program does at its start; the table is played in any case, under its own deadlines. */
  private void warm(JsonObject first) throws IOException, InterruptedException {
    try {
      Connection.warm(
          orders(first), stub -> stub.listOrders(ListOrdersRequest.getDefaultInstance()), Deadline.after(WARM_SECONDS_MAX, TimeUnit.SECONDS));
    } catch (StatusRuntimeException error) {
      System.err.println("no call was answered at the start: " + error.getStatus());
    }
  }

  private JsonObject play(JsonObject scenario) {
    var began = System.nanoTime();
    var report = new JsonObject();
    var seen = new JsonArray();
    report.addProperty("scenario", scenario.get("name").getAsString());
    report.add("steps", seen);
    // The bound of all its calls and streams, whatever deadlines of their own they have.
    try (var bound = Context.current().withDeadlineAfter(SCENARIO_SECONDS_MAX, TimeUnit.SECONDS, timer)) {
      bound.run(() -> perform(scenario, seen, report));
    }
    report.addProperty("seconds", (System.nanoTime() - began) / 1e9);
    return report;
  }

  private void perform(JsonObject scenario, JsonArray seen, JsonObject report) {
    try (var stage = new Stage(this)) {
      for (var step : scenario.getAsJsonArray("steps")) {
        seen.add(stage.perform(step.getAsJsonObject()));
      }
    } catch (Exception error) {
      report.addProperty("error", "step " + (seen.size() + 1) + ": " + error);
    }
  }

  OrderServiceBlockingStub orders(JsonObject step) throws IOException {
    return OrderServiceGrpc.newBlockingStub(channel(step)).withCallCredentials(tokens(step));
  }

  OrderServiceBlockingV2Stub streams(JsonObject step) throws IOException {
    return OrderServiceGrpc.newBlockingV2Stub(channel(step)).withCallCredentials(tokens(step));
  }

  private Channel channel(JsonObject step) throws IOException {
    var door = step.get("door").getAsString();
    if (!channels.containsKey(door)) {
      var endpoint = task.getAsJsonObject("doors").get(door).getAsString();
      channels.put(door, Connection.open(endpoint, task.get("authority_file").getAsString()));
    }
    return channels.get(door);
  }

  private Tokens tokens(JsonObject step) {
    return tokens.computeIfAbsent(step.get("user").getAsString(), name -> {
      var user = task.getAsJsonObject("users").getAsJsonObject(name);
      if (user.has("token")) {
        return Tokens.fixed(user.get("token").getAsString());
      }
      return Tokens.ofClient(
          user.get("issuer").getAsString(), user.get("client_id").getAsString(), user.get("client_secret").getAsString());
    });
  }
}
