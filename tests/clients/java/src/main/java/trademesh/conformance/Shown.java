package trademesh.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.MessageOrBuilder;
import com.google.protobuf.util.JsonFormat;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.util.regex.Pattern;
import trademesh.client.Refusal;
import trademesh.oms.v1.OrderServiceOuterClass.StreamOrderEventsResponse;

/** What the table can expect and name: answers, errors and messages as JSON. */
final class Shown {
  private static final Pattern REFERENCE = Pattern.compile("\\$\\{([a-z0-9_.]+)}");
  private static final JsonFormat.Printer PRINTER = JsonFormat.printer().preservingProtoFieldNames();

  private Shown() {}

  static JsonObject plain(MessageOrBuilder message) throws IOException {
    return JsonParser.parseString(PRINTER.print(message)).getAsJsonObject();
  }

  static JsonObject refusal(StatusRuntimeException error) {
    var told = Refusal.of(error);
    var violations = new JsonArray();
    for (var violation : told.violations()) {
      var shown = new JsonObject();
      shown.addProperty("field", violation.getField());
      shown.addProperty("rule", violation.getReason());
      violations.add(shown);
    }
    var seen = new JsonObject();
    seen.addProperty("code", told.code().name());
    seen.addProperty("reason", told.reason());
    seen.add("violations", violations);
    seen.addProperty("message", told.message());
    return seen;
  }

  static JsonObject brief(StreamOrderEventsResponse message) {
    var shown = new JsonObject();
    var versions = new JsonObject();
    shown.addProperty("sequence", message.getSequence());
    shown.addProperty("kind", message.getPayloadCase().name().toLowerCase());
    shown.add("versions", versions);
    switch (message.getPayloadCase()) {
      case SNAPSHOT -> {
        shown.addProperty("complete", message.getSnapshot().getComplete());
        message.getSnapshot().getOrdersList().forEach(order -> versions.addProperty(order.getClientOrderId(), order.getVersion()));
      }
      case EVENT -> {
        var order = message.getEvent().getOrder();
        shown.addProperty("client_order_id", order.getClientOrderId());
        shown.addProperty("state", order.getState().name());
        versions.addProperty(order.getClientOrderId(), order.getVersion());
      }
      case HEARTBEAT -> shown.addProperty("last_sequence", message.getHeartbeat().getLastSequence());
      case END -> shown.addProperty("end", Status.fromCodeValue(message.getEnd().getStatus().getCode()).getCode().name());
      default -> { }
    }
    return shown;
  }

  /** Puts what earlier steps saw in the place of ${name.path}. */
  static String fill(String request, JsonObject saved) {
    return REFERENCE.matcher(request).replaceAll(found -> {
      var value = at(saved, found.group(1));
      if (value == null) {
        throw new IllegalArgumentException("nothing is saved as " + found.group());
      }
      return value.getAsString();
    });
  }

  static boolean matches(JsonObject seen, JsonObject wanted) {
    return wanted.entrySet().stream().allMatch(entry -> entry.getValue().equals(at(seen, entry.getKey())));
  }

  private static JsonElement at(JsonElement value, String path) {
    for (var name : path.split("\\.")) {
      if (value == null || !value.isJsonObject()) {
        return null;
      }
      value = value.getAsJsonObject().get(name);
    }
    return value;
  }
}
